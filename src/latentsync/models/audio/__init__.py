"""Audio encoders: sound => tokens per frame."""
