"""onnxruntime as this package uses it: sessions, custom-operator libraries, and the cores there are to compute with."""
