"""Records before they are tokens: which files hold them, who reads them and as what, and how much there is."""
