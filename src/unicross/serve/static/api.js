// The server, as functions. Every failure is an Error with the server's own sentence and its status.

export async function ask(path, { body, signal } = {}) {
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The server does not answer. Is it still running?"), { status: 0 });
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok || !answer) {
    throw Object.assign(new Error(answer?.error?.message ?? `The server answered ${response.status}.`), { status: response.status });
  }
  return answer;
}

export const thumbnail = (id, side = 320) => `images/${encodeURIComponent(id)}/thumbnail?side=${side}`;
export const original = (id) => `images/${encodeURIComponent(id)}`;

// Pictures are made small before they travel; what the browser cannot read travels as it is.
export async function shrink(file, longest = 1024) {
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, longest / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    const pen = canvas.getContext("2d");
    pen.fillStyle = "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  } catch {
    return file;
  }
}
