"""Ioffe & Szegedy 2015, Sec. 4.2.2: one Inception without batch normalization and with it, at several rates."""
