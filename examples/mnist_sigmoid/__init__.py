"""Ioffe & Szegedy 2015, Sec. 4.1: a sigmoid network on binary images, with and without batch normalization."""
