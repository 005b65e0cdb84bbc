"""What the bot does at set times: trainings, and lines of personas."""
