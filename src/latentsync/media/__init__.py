"""Files <=> arrays: video, audio, mel spectrograms."""
