"""What tests of `kerasbn.kernels.tiered` share."""

#: Uses of a size after which compiled kernels take over, with the fixture `small_and_soon`.
UNCOMPILED_STEPS = 3
