/* Keys for every page: "?" lists them, "/" moves to the search, the arrow keys from line to line, Escape leaves the
   search, "[" and "]" turn to the neighbours of a study in the list that it was opened from. A notice says when the list
   is out of date. */
"use strict";
(() => {
  const typing = (element) => element.matches("input, select, textarea, [contenteditable]");
  const rows = () => [...document.querySelectorAll("a.row")];
  const help = () => document.getElementById("keys");
  const LIST = "the list that a study was opened from";

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
    } else if (event.key === "?" && help() && !typing(here)) {
      event.preventDefault();
      if (help().open) help().close();
      else help().showModal();
    } else if ((event.key === "[" || event.key === "]") && !typing(here)) {
      document.querySelector(`#neighbours a[rel=${event.key === "[" ? "prev" : "next"}]`)?.click();
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

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-keys]")) help()?.showModal();
    if (event.target.closest("#keys button")) help().close();
  });

  // The list is kept in this tab only, and read where a study of it is shown.
  function keepList() {
    const list = document.querySelector("#studies[data-address]");
    if (!list) return;
    const studies = rows().map((row) => [row.getAttribute("href"), row.textContent]);
    sessionStorage.setItem(LIST, JSON.stringify({ address: list.dataset.address, studies }));
  }

  function showNeighbours() {
    const place = document.getElementById("neighbours");
    const list = JSON.parse(sessionStorage.getItem(LIST) ?? "null");
    if (!place || !list) return;
    document.getElementById("list").href = list.address;
    const at = list.studies.findIndex(([href]) => href === place.dataset.study);
    if (at < 0) return;
    for (const [rel, label, study] of [["prev", "← Previous", list.studies[at - 1]], ["next", "Next →", list.studies[at + 1]]]) {
      if (!study) continue;
      const link = document.createElement("a");
      [link.rel, link.href, link.title, link.textContent] = [rel, study[0], study[1], label];
      place.append(link);
    }
  }

  keepList();
  showNeighbours();
  document.addEventListener("htmx:afterSettle", keepList);

  const stale = (is) => {
    const notice = document.getElementById("stale");
    if (notice) notice.hidden = !is;
  };
  for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"])
    document.addEventListener(name, () => stale(true));
  document.addEventListener("htmx:afterSwap", () => stale(false));
})();
