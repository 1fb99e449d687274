"""Ioffe & Szegedy 2015, abstract and Sec. 3.3: accuracy over initial scale and learning rate, without and with BN."""
