"""What the tests run once per item. Every function is importable, and fails as its items say."""
