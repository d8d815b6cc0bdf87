"""Tests of onnxadmm/int8."""
