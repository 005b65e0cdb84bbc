"""What moderators decide about members: who is not answered, and how often others are."""
