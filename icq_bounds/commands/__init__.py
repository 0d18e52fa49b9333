"""The commands of `icq`, one file each: options beside what they do."""
