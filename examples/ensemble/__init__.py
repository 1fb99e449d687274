"""Ioffe & Szegedy 2015, Sec. 4.2.3: an ensemble of six networks on BN-x30."""
