"""What the notebooks draw and what their sliders move."""
