"""An RTSP server that keeps what it is sent to `/in` in the Matroska file argv[1]; says its port and runs until it is killed.

For the system's Python, which has GStreamer's bindings.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (the versions come first)

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_launch(f"( rtph264depay name=depay0 ! h264parse ! matroskamux streamable=true ! filesink location={sys.argv[1]} )")
server.get_mount_points().add_factory("/in", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
