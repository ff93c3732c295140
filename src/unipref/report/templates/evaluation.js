"use strict";
// A model that is chosen in one section is chosen in all that have it, and what was pressed stays where it is.
document.addEventListener("DOMContentLoaded", () => {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  let following = false;
  const follow = (tab) => {
    if (following) return;
    following = true;
    const top = tab.getBoundingClientRect().top;
    for (const other of tabs) {
      if (other !== tab && other.textContent === tab.textContent && other.getAttribute("aria-selected") !== "true") other.click();
    }
    window.scrollBy({ top: tab.getBoundingClientRect().top - top, behavior: "instant" });
    following = false;
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => follow(tab));
    tab.addEventListener("keydown", (event) => { // script.js has moved the focus by now
      if (["ArrowRight", "ArrowLeft"].includes(event.key)) follow(document.activeElement);
    });
  }
});
