"""What the experiments share: the errors of linear agents, exactly and from logs, as numbers and as one panel."""
