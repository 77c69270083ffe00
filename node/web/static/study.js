/* The reading desk: which finding is selected, what was said of each, and the viewer beside them. Without scripts the
   page works with plain forms; without WebGL 2 the slices are drawn by the server. */
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const form = () => $("#review");
const rows = () => all("tbody[data-lesion]");
const typing = (element) => element.closest("input:not([type=radio]):not([type=image]), textarea, select") !== null;
let viewer = null;

/* ---- tabs ---- */

function showTab() {
  const tabs = all(".tabs a");
  const wanted = tabs.find((tab) => tab.hash === location.hash) ?? tabs[0];
  for (const tab of tabs) {
    const here = tab === wanted;
    if (here) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
    $(tab.hash)?.classList.toggle("current", here);
  }
  viewer?.refresh();
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest(".tabs a");
  if (!tab || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  history.replaceState(null, "", tab.hash);
  showTab();
});
addEventListener("hashchange", showTab);

/* ---- what was said of each finding ---- */

const verdictOf = (row) => $("input[type=radio]:checked", row)?.value;
const certaintyOf = (row) => $("select", row)?.value ?? $(".certainty", row)?.textContent.trim() ?? row.dataset.tone;

/** How a finding is drawn: by its certainty, or as rejected. */
function toneOf(row) {
  const verdict = verdictOf(row);
  if (row.dataset.tone === "gone") return "gone";
  const rejected = row.dataset.kept === "no" ? verdict !== "accept" : verdict === "reject";
  return rejected ? "rejected" : certaintyOf(row);
}

const placeOf = (element) => element.dataset.at.split(" ").map(Number);

function refreshMarks() {
  for (const row of rows()) {
    const tone = toneOf(row);
    row.classList.toggle("is-rejected", tone === "rejected");
    const select = $("select", row);
    if (select) select.className = tone;
  }
  const waiting = $("#added .confirm[data-at]");
  const marks = rows().filter((row) => row.dataset.at).map((row) => ({
    at: placeOf(row),
    diameter: Number(row.dataset.diameter),
    label: row.dataset.label,
    tone: toneOf(row),
    selected: row.classList.contains("selected"),
  }));
  if (waiting?.dataset.at)
    marks.push({ at: placeOf(waiting), diameter: Number(waiting.dataset.diameter), label: "?", tone: "possible", selected: true });
  viewer?.setMarks(marks);
}

/* ---- the selected finding ---- */

const selected = () => $("tbody[data-lesion].selected");

function select(row, { turn = true, focus = false } = {}) {
  for (const other of rows()) other.classList.toggle("selected", other === row);
  if (focus) {
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }
  if (turn && viewer && row.dataset.at) viewer.go(placeOf(row), true);
  else if (turn && !viewer) $("[data-slice]", row)?.click();
  showCrops(row);
  refreshMarks();
}

function showCrops(row) {
  const crops = $("#crops");
  const figures = all(".strips figure", row);
  if (!crops || "added" in row.dataset) return;
  crops.hidden = !figures.length;
  const title = document.createElement("p");
  title.className = "caption";
  title.textContent = `${row.dataset.label === "gone" ? "No longer seen" : `Microbleed ${row.dataset.label}`}: axial, coronal, sagittal; the bar is 5 mm. In the phase a microbleed is bright (paramagnetic), calcium is dark.`;
  crops.replaceChildren(title, ...figures.map((figure) => figure.cloneNode(true)));
  for (const image of all("img", crops)) image.loading = "eager";
}

function move(step) {
  const list = rows();
  if (!list.length) return;
  const at = list.indexOf(selected());
  select(list[at < 0 ? 0 : Math.min(Math.max(at + step, 0), list.length - 1)], { focus: true });
}

function judge(verdict) {
  const radio = $(`input[type=radio][value=${verdict}]`, selected() ?? document.createElement("p"));
  if (!radio) return;
  radio.checked = !radio.checked; // a second time: no verdict
  radio.dispatchEvent(new Event("change", { bubbles: true }));
}

document.addEventListener("click", (event) => {
  const row = event.target.closest("tbody[data-lesion]");
  if (row && !event.target.closest("button, select")) select(row, { turn: row !== selected() || !event.target.closest("label, input") });
});

document.addEventListener("change", (event) => {
  if (!event.target.closest("#review") || ["number", "show"].includes(event.target.name) || "number" in event.target.dataset) return;
  keepDraft();
  refreshMarks();
});
document.addEventListener("input", (event) => {
  if (event.target.closest("#review textarea, #review .names")) keepDraft();
});

function setCertainty(certainty) {
  const field = selected() && $("select", selected());
  if (!field || ![...field.options].some((option) => option.value === certainty)) return;
  field.value = certainty;
  field.dispatchEvent(new Event("change", { bubbles: true }));
}

/* ---- adding ---- */

function onPlace(event) {
  press("[data-tool='navigate']");
  const place = event.detail.lps.map((value) => value.toFixed(2)).join(" ");
  htmx.ajax("POST", form().getAttribute("action").split("#")[0], { source: "#volumes", target: "#added", swap: "outerHTML", values: { place } });
}

// What was added has changed: draw it, and bring it into view.
document.addEventListener("htmx:afterSettle", (event) => {
  const asked = event.detail.requestConfig?.target?.id;
  if (asked !== "added" && asked !== "viewer") return;
  const open = $("#added .confirm, #added [role=alert]");
  const last = all("tbody[data-added]").at(-1);
  if (asked === "added" || open) (open ?? last)?.scrollIntoView({ block: "nearest" });
  if (asked === "added") {
    if (last && !open) select(last, { turn: viewer !== null });
    else if (!selected() && rows()[0]) select(rows()[0], { turn: false });
    if (!viewer && !open) $("#review > button[name=go]")?.click(); // the server draws the rings
  }
  keepDraft();
  refreshMarks();
});

/* ---- a draft survives a reload, in this tab ---- */

const DRAFT = "review of job ";
const draftName = () => DRAFT + form().dataset.job;

function draftOf() {
  const fields = new URLSearchParams(new FormData(form()));
  for (const name of ["position", "view", "number", "row", "column"]) fields.delete(name);
  return fields.toString();
}

let clean = ""; // the form as it was when nothing was entered

function keepDraft() {
  if (!$("[name=preview]")) return;
  const draft = draftOf();
  if (draft === clean) sessionStorage.removeItem(draftName());
  else sessionStorage.setItem(draftName(), draft);
}

const dirty = () => form() !== null && sessionStorage.getItem(draftName()) !== null;

async function restoreDraft() {
  if (!$("[name=preview]")) sessionStorage.removeItem(draftName()); // it was sent, or cannot be
  clean = draftOf();
  const draft = sessionStorage.getItem(draftName());
  const shown = !location.pathname.endsWith("/review"); // that page has the form as it was sent
  if (!shown) keepDraft();
  if (!draft || !shown || draft === clean || !$("[name=preview]")) return;
  const answer = await fetch(form().getAttribute("action").split("#")[0], { method: "POST", body: new URLSearchParams(`${draft}&position=0`) });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const restored = $("#review .findings", page);
  if (!answer.ok || !restored) return;
  $("#review .findings").replaceWith(document.adoptNode(restored));
  htmx.process($("#review .findings"));
  $("#restored").hidden = false;
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-discard]")) return;
  sessionStorage.removeItem(draftName());
  location.reload();
});

/* ---- keys ---- */

const press = (selector, within = document) => {
  const button = within && $(selector, within);
  if (button && !button.disabled) button.click();
};

const turn = (step) => (viewer ? viewer.turn(step) : press(`#viewer [data-turn='${step}']`));

const keys = {
  j: () => move(1),
  k: () => move(-1),
  a: () => judge("accept"),
  r: () => judge("reject"),
  s: () => selected() && select(selected()),
  n: () => press("#volumes [data-tool='add']"),
  d: () => setCertainty("definite"),
  p: () => setCertainty("possible"),
  o: () => press("[data-marks]"),
  "+": () => viewer?.enlarge(1.25),
  "-": () => viewer?.enlarge(0.8),
  0: () => press("[data-reset]"),
  Escape: () => press("[data-tool='navigate']"),
  ArrowLeft: () => turn(-1),
  ArrowRight: () => turn(1),
  ArrowUp: () => turn(-1),
  ArrowDown: () => turn(1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || typing(event.target)) return;
  const act = keys[event.key];
  if (!act || !form()?.classList.contains("current")) return;
  event.preventDefault(); // an arrow key changes the slice and not the verdict that has the focus
  act();
});

/* ---- the viewer ---- */

function pressed(buttons, which) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === which));
}

function listenToTools(root) {
  const number = $("[data-number]", root);
  root.addEventListener("viewer:moved", () => {
    if (document.activeElement !== number) number.value = viewer.number;
    $("[data-position]", root).textContent = `${viewer.order} of ${viewer.numbers.length}`;
  });
  number.addEventListener("change", () => viewer.goToNumber(Number(number.value)));
  number.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // it would send the form
    number.blur();
  });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { dataset } = button;
    if (dataset.turn) viewer.turn(Number(dataset.turn));
    if (dataset.zoom) viewer.enlarge(Number(dataset.zoom));
    if ("reset" in dataset) viewer.reset();
    if (dataset.tool) {
      viewer.tool = root.dataset.tool = dataset.tool;
      pressed(all("[data-tool]", root), button);
    }
    if ("planes" in dataset || "marks" in dataset) {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      if ("planes" in dataset) viewer.threePlanes(on);
      else viewer.showMarks(on);
    }
  });
}

async function startViewer() {
  const root = $("#volumes");
  if (!root) return;
  const { VolumeViewer, supported } = await import("./volumes.js");
  if (!supported()) return;
  root.dataset.loading = ""; // the slice of the server stays in sight until the first volume is drawn
  root.hidden = false;
  const made = new VolumeViewer(root);
  root.addEventListener("viewer:ready", () => {
    viewer = made;
    delete root.dataset.loading;
    $("#viewer").hidden = true;
    refreshMarks();
    if (selected()) select(selected());
  });
  viewer = made;
  root.addEventListener("viewer:place", onPlace);
  listenToTools(root);
  try {
    await made.load();
  } catch (error) {
    viewer = null;
    root.hidden = true; // the slices of the server are there
    $("#viewer").hidden = false;
    console.error("The viewer cannot show the volumes.", error);
  }
}

/* ---- slices drawn by the server ---- */

document.addEventListener("click", (event) => {
  const picture = event.target.closest("input[type=image][data-place]");
  if (!picture) return;
  event.preventDefault();
  if (event.detail === 0) return; // pressed by keyboard, it has no place; there are fields for row and column
  const box = picture.getBoundingClientRect();
  const values = { "place.x": Math.round(event.clientX - box.left), "place.y": Math.round(event.clientY - box.top) };
  htmx.ajax("POST", picture.formAction.split("#")[0], { source: picture, target: "#viewer", swap: "outerHTML settle:0ms", values });
});

let turned = 0;
document.addEventListener("wheel", (event) => {
  const stage = event.target.closest(".stage");
  if (!stage || event.ctrlKey) return;
  const button = $(`#viewer [data-turn='${event.deltaY > 0 ? 1 : -1}']`);
  if (button.disabled) return; // at the last slice the page scrolls
  event.preventDefault();
  if (event.timeStamp - turned < 60) return;
  turned = event.timeStamp;
  button.click();
}, { passive: false });

// Fetch the neighbouring slices in advance.
function ahead() {
  const stage = $("#viewer:not([hidden]) .stage[data-neighbours]");
  for (const url of stage ? stage.dataset.neighbours.split(" ").filter(Boolean) : []) new Image().src = url;
}
document.addEventListener("htmx:afterSettle", ahead);

/* ---- a newer result, and work that has not been sent ---- */

// Part of the page reloads itself. If there is a newer result, it is shown, unless something would be lost.
document.addEventListener("htmx:afterSwap", () => {
  const newer = $("#newer");
  if (!newer?.dataset.job || !form()) return;
  const same = newer.dataset.job === form().dataset.job;
  if (!same && !dirty()) location.reload();
  newer.hidden = same;
});

let started = false;

async function start() {
  if (started || !form()) return;
  started = true;
  showTab();
  await restoreDraft();
  const first = rows()[0];
  if (first) select(first, { turn: false });
  startViewer();
}
document.addEventListener("htmx:afterSettle", start); // the page of a study that waits is replaced by its result
start();
