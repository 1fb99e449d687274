"""The mathematics: pure functions on tensors, without Keras, variables or distribution."""
