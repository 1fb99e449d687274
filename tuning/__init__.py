"""How much higher a learning rate batch normalization allows, searched with Keras Tuner on real data."""
