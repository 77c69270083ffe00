// Keys and clicks for the study page. Everything works without it, by plain forms.
(() => {
  "use strict";
  const typing = (element) => element.closest("input:not([type=radio]):not([type=image]), textarea, select") !== null;
  const lesions = () => [...document.querySelectorAll("tbody[data-lesion]")];
  let dirty = false;

  function move(step) {
    const all = lesions();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement.closest("tbody[data-lesion]"));
    const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)];
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "center" });
  }

  function judge(verdict) {
    const here = document.activeElement.closest("tbody[data-lesion]");
    const radio = here && here.querySelector(`input[type=radio][value=${verdict}]`);
    if (!radio) return;
    radio.checked = !radio.checked; // again: no verdict
    radio.dispatchEvent(new Event("change", { bubbles: true }));
  }

  const press = (selector, within = document) => {
    const button = within && within.querySelector(selector);
    if (button && !button.disabled) button.click();
  };

  const keys = {
    j: () => move(1),
    k: () => move(-1),
    a: () => judge("accept"),
    r: () => judge("reject"),
    s: () => press("[data-slice]", document.activeElement.closest("tbody[data-lesion]")),
    ArrowLeft: () => press("#viewer [data-turn='-1']"),
    ArrowRight: () => press("#viewer [data-turn='1']"),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || typing(event.target)) return;
    const act = keys[event.key];
    if (!act || !document.getElementById("review")) return;
    event.preventDefault(); // also so that an arrow turns a slice and never the verdict that was clicked last
    act();
  });

  // A click on the slice marks a place without loading the page again.
  document.addEventListener("click", (event) => {
    const picture = event.target.closest("input[type=image][data-place]");
    if (!picture) return;
    event.preventDefault();
    if (event.detail === 0) return; // by keyboard: no place; there are fields for row and column
    const box = picture.getBoundingClientRect();
    const values = { "place.x": Math.round(event.clientX - box.left), "place.y": Math.round(event.clientY - box.top) };
    dirty = true;
    htmx.ajax("POST", picture.formAction.split("#")[0], { source: picture, target: "#viewer", swap: "outerHTML settle:0ms", values });
  });

  let turned = 0;
  document.addEventListener("wheel", (event) => {
    if (!event.target.closest(".stage") || event.ctrlKey) return;
    event.preventDefault();
    if (event.timeStamp - turned < 60) return;
    turned = event.timeStamp;
    press(`#viewer [data-turn='${event.deltaY > 0 ? 1 : -1}']`);
  }, { passive: false });

  // The neighbours of a slice are fetched before they are asked for.
  const ahead = () => {
    const stage = document.querySelector("#viewer .stage[data-beside]");
    for (const url of stage ? stage.dataset.beside.split(" ").filter(Boolean) : []) new Image().src = url;
  };
  document.addEventListener("htmx:afterSettle", ahead);
  addEventListener("load", ahead);

  // A part of the page follows the study; when another result has come, say so instead of taking the form away.
  document.addEventListener("htmx:afterSwap", () => {
    const newer = document.getElementById("newer");
    const form = document.getElementById("review");
    if (newer && form && newer.dataset.job) newer.hidden = newer.dataset.job === form.dataset.job;
  });

  document.addEventListener("change", (event) => {
    if (event.target.closest("#review") && event.target.name !== "number") dirty = true;
  });
  document.addEventListener("submit", () => { dirty = false; });
  addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
})();
