"""How well a method does: cases of the papers' protocols, stored predictions, scores, and a page that shows them."""
