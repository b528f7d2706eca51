"""ONNX graphs of saved models: tracing, quantisation, measurement, description."""
