"""Parts of serial fusion."""
