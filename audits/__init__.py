"""What the project checks about itself at scale.  Not in the wheel."""
