// What the theme leaves to be done for a keyboard and a screen reader, also for what its scripts add later.
let copies = 0;
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();

function mend() {
  document.querySelectorAll(".md-search:not([aria-label])").forEach((found) => found.setAttribute("aria-label", "Search"));
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((found) => {
    copies += 1;
    found.setAttribute("aria-label", `Block ${copies}`);
  });
  // Wide tables are scrolled: with the arrow keys, too.
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((found) => (found.tabIndex = 0));
}
