"""Ioffe & Szegedy 2015, Sec. 4.2.1: a network of 2014 and what `kerasbn.accelerate` makes of it."""
