"""Ioffe & Szegedy 2015, Sec. 2: does batch normalization reduce internal covariate shift, and is it why it is fast?"""
