"""Files in UNDERSTUDY_HOME that bot and trainer share."""
