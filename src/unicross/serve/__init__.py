"""The HTTP server and its web page (extra `serve`): `unicross serve STORE`."""
