"""The operator's pages of blocks, limits, mutes, roles and age restrictions."""
