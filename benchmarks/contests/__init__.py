"""One module a family of attacks: its competitors, and the contests they meet in."""
