"""From training to serving: population statistics, folding, SavedModel, TFLite and ONNX, each compared with Keras."""
