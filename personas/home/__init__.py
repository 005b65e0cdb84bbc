"""Files in UNDERSTUDY_HOME and job folders that bot and trainer share."""
