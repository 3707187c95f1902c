"""Settings of every test: hypothesis draws the same examples each time and never judges by the clock."""

from hypothesis import settings

settings.register_profile("unicross", deadline=None, derandomize=True)
settings.load_profile("unicross")

pytest_plugins = ["milvus_server"]
