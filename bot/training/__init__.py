"""From a training request to an installed adapter: the job queue and the trainer process."""
