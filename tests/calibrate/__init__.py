"""Tests of onnxadmm/calibrate."""
