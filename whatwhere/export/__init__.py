"""Runs for other programs: one ONNX file, or a repository on the Hugging Face hub."""
