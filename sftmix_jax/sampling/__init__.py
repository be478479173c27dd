"""From logits to text: choose a token, loop over tokens, serve prompts."""
