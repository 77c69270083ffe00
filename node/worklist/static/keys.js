/* Keys of every list: "/" goes to the search, the arrows go from line to line, Escape leaves the search.
   And a list that is no longer kept up to date says so. */
"use strict";
(() => {
  const typing = (element) => element.matches("input, select, textarea, [contenteditable]");
  const rows = () => [...document.querySelectorAll("a.row")];

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = document.activeElement ?? document.body;
    const search = document.querySelector("[data-search]");
    if (event.key === "/" && search && !typing(here)) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape" && here === search) {
      search.blur();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (!typing(here) || here === search)) {
      const all = rows();
      if (!all.length) return;
      const at = all.indexOf(here);
      const next = event.key === "ArrowDown" ? at + 1 : at - 1;
      if (at < 0 && event.key === "ArrowUp") return;
      event.preventDefault();
      if (next < 0) search?.focus();
      else all[Math.min(next, all.length - 1)].focus();
    }
  });

  const stale = (is) => {
    const notice = document.getElementById("stale");
    if (notice) notice.hidden = !is;
  };
  for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"])
    document.addEventListener(name, () => stale(true));
  document.addEventListener("htmx:afterSwap", () => stale(false));
})();
