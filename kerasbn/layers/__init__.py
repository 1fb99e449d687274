"""The layers: what owns variables and switches between training and inference."""
