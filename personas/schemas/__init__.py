"""Types that bot and trainer share."""
