"""What Bjorck et al. (2018) measured, on a ResNet of any depth."""
