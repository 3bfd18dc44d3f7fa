"use strict";
/* What every page does: make elements, and open the folds that links need. */

// Text goes in as text, never as markup; a function is what happens at an event of that name.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

{
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    target.querySelector(":scope > details")?.setAttribute("open", "");
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  // A link to where one already is changes nothing, but should open it again.
  addEventListener("click", (e) => e.target.closest?.("a[href^='#']")?.hash === location.hash && unfold());
  unfold();

  const all = document.getElementById("unfold");
  all?.addEventListener("click", () => {
    const open = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", open);
    for (const one of document.querySelectorAll("details.section")) one.open = open;
  });
}
