"""Pictures of dishes from any pipeline: prompts, checks, captions, masks read from attention."""
