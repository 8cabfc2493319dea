"""Pictures without a window: OpenGL found, scenes drawn, videos made."""
