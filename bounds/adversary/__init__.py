"""Every lemma under attack on random instances, with independent left sides."""
