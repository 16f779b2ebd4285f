"""The leaderboards as pages for a browser: static files that need no server and fetch nothing."""
