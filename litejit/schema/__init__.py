"""The TFLite file format: declarations (`enums`, `tables`, `options`), verifier, reader, writer and model builder."""
