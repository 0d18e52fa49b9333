"""The ten-agent experiment."""
