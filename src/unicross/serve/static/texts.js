// The page's own texts in six languages; {name} is filled in. index.html names them in data-text (what an
// element says) and in data-placeholder, data-title and data-label (its attributes).

export const TEXTS = {
  //               en, de, fr, es, zh, ja
  skip: ["Skip to the results", "Zu den Ergebnissen", "Aller aux résultats", "Ir a los resultados", "跳到结果", "結果へ移動"],
  home: ["unicross: start again", "unicross: von vorn", "unicross : recommencer", "unicross: empezar de nuevo", "unicross:重新开始", "unicross:最初から"],
  query: ["Describe a picture, or drop one here", "Beschreiben Sie ein Bild, oder ziehen Sie eines hierher", "Décrivez une image, ou déposez-en une ici", "Describa una imagen o suelte una aquí", "描述一张图片,或把图片拖到这里", "画像を説明するか、ここに画像をドロップ"],
  what: ["What to look for", "Wonach gesucht wird", "Que chercher", "Qué buscar", "要找什么", "探すもの"],
  chip: ["The picture that is searched with", "Das Bild, mit dem gesucht wird", "L’image de la recherche", "La imagen con la que se busca", "用来搜索的图片", "検索に使う画像"],
  unchip: ["Remove the picture", "Bild entfernen", "Retirer l’image", "Quitar la imagen", "移除图片", "画像を外す"],
  byPicture: ["Search with a picture", "Mit einem Bild suchen", "Chercher avec une image", "Buscar con una imagen", "用图片搜索", "画像で検索"],
  search: ["Search", "Suchen", "Chercher", "Buscar", "搜索", "検索"],
  filters: ["Filters", "Filter", "Filtres", "Filtros", "筛选", "絞り込み"],
  saved: ["Saved searches", "Gemerkte Suchen", "Recherches enregistrées", "Búsquedas guardadas", "已保存的搜索", "保存した検索"],
  save: ["Save this search", "Diese Suche merken", "Enregistrer cette recherche", "Guardar esta búsqueda", "保存此搜索", "この検索を保存"],
  savedNone: ["No search is saved yet. They stay in this browser.", "Noch keine Suche gemerkt. Sie bleiben in diesem Browser.", "Aucune recherche enregistrée. Elles restent dans ce navigateur.", "Aún no hay búsquedas guardadas. Quedan en este navegador.", "尚未保存搜索。它们只保存在此浏览器中。", "保存した検索はまだありません。このブラウザーにだけ残ります。"],
  forget: ["Delete {name}", "{name} löschen", "Supprimer {name}", "Borrar {name}", "删除 {name}", "{name} を削除"],
  theme: ["Dark or light", "Dunkel oder hell", "Sombre ou clair", "Oscuro o claro", "深色或浅色", "ダークまたはライト"],
  find: ["Find", "Finde", "Trouver", "Encontrar", "查找", "探す"],
  pictures: ["Pictures", "Bilder", "Images", "Imágenes", "图片", "画像"],
  texts: ["Texts", "Texte", "Textes", "Textos", "文字", "テキスト"],
  by: ["Compare", "Vergleiche", "Comparer", "Comparar", "比较", "比べる"],
  meaning: ["Meaning", "Sinn", "Sens", "Significado", "含义", "意味"],
  words: ["Words", "Wörter", "Mots", "Palabras", "字词", "言葉"],
  both: ["Both", "Beides", "Les deux", "Ambos", "两者", "両方"],
  without: ["Without", "Ohne", "Sans", "Sin", "不含", "除く"],
  withoutHint: ["people, snow", "Menschen, Schnee", "personnes, neige", "personas, nieve", "人, 雪", "人, 雪"],
  from: ["From", "Von", "Du", "Desde", "从", "開始日"],
  until: ["Until", "Bis", "Au", "Hasta", "到", "終了日"],
  weight: ["Words ↔ picture", "Wörter ↔ Bild", "Mots ↔ image", "Palabras ↔ imagen", "文字 ↔ 图片", "言葉 ↔ 画像"],
  likely: ["Match likely from", "Treffer ab", "Probabilité dès", "Probable desde", "匹配可能性至少", "一致の確からしさ"],
  fold: ["One of near-duplicates", "Fast gleiche einmal", "Quasi-doublons une fois", "Casi iguales una vez", "合并近似重复", "ほぼ同じ画像をまとめる"],
  onePerItem: ["One picture of each item", "Ein Bild je Objekt", "Une image par objet", "Una imagen por artículo", "每个物品一张图片", "アイテムごとに 1 枚"],
  clear: ["Clear", "Zurücksetzen", "Effacer", "Borrar", "清除", "クリア"],
  any: ["Any", "Alle", "Tous", "Todos", "不限", "すべて"],
  none: ["(none)", "(keine)", "(aucun)", "(ninguno)", "(无)", "(なし)"],
  results: ["Results", "Ergebnisse", "Résultats", "Resultados", "结果", "結果"],
  keySearch: ["search", "suchen", "chercher", "buscar", "搜索", "検索"],
  keyMove: ["move", "bewegen", "se déplacer", "moverse", "移动", "移動"],
  keyOpen: ["open", "öffnen", "ouvrir", "abrir", "打开", "開く"],
  keySelect: ["select", "auswählen", "sélectionner", "seleccionar", "选择", "選択"],
  keyClose: ["close", "schließen", "fermer", "cerrar", "关闭", "閉じる"],
  like: ["More like this", "Mehr davon", "Plus comme ça", "Más como esta", "更多类似的", "似た画像"],
  previous: ["Previous", "Zurück", "Précédent", "Anterior", "上一个", "前へ"],
  next: ["Next", "Weiter", "Suivant", "Siguiente", "下一个", "次へ"],
  close: ["Close", "Schließen", "Fermer", "Cerrar", "关闭", "閉じる"],
  goneKept: ["The file is gone. The store keeps this small picture of it.", "Die Datei ist fort. Der Speicher bewahrt dieses kleine Bild von ihr.", "Le fichier n’est plus là. L’index en garde cette petite image.", "El archivo ya no está. El índice guarda esta imagen pequeña.", "文件已不在。库中保留了这张小图。", "ファイルはもうありません。保存された小さな画像を表示しています。"],
  gone: ["The file is gone or cannot be read.", "Die Datei ist fort oder nicht lesbar.", "Le fichier n’est plus là ou est illisible.", "El archivo ya no está o no se puede leer.", "文件已不在或无法读取。", "ファイルがないか、読み取れません。"],
  file: ["Open the file", "Datei öffnen", "Ouvrir le fichier", "Abrir el archivo", "打开文件", "ファイルを開く"],
  link: ["Copy link", "Link kopieren", "Copier le lien", "Copiar enlace", "复制链接", "リンクをコピー"],
  copied: ["Copied", "Kopiert", "Copié", "Copiado", "已复制", "コピーしました"],
  copyByHand: ["Copy it from the address bar", "Bitte aus der Adresszeile kopieren", "Copiez-le de la barre d’adresse", "Cópielo de la barra de direcciones", "请从地址栏复制", "アドレスバーからコピーしてください"],
  part: ["Search a part", "Ausschnitt suchen", "Chercher une partie", "Buscar una parte", "搜索局部", "一部分で検索"],
  partHint: ["Draw a box, or move it with the arrows (with Shift: its size). Enter searches, Esc ends.", "Rahmen ziehen, oder mit den Pfeilen bewegen (mit Umschalt: Größe). Enter sucht, Esc beendet.", "Tracez un cadre, ou déplacez-le avec les flèches (Maj : sa taille). Entrée cherche, Échap quitte.", "Dibuje un recuadro o muévalo con las flechas (Mayús: tamaño). Intro busca, Esc termina.", "拖出方框,或用方向键移动(按住 Shift 改变大小)。回车搜索,Esc 取消。", "枠を描くか、矢印キーで移動(Shift で大きさ)。Enter で検索、Esc で終了。"],
  near: ["Nearest captions", "Nächste Bildtexte", "Légendes les plus proches", "Leyendas más cercanas", "最接近的描述", "近い説明文"],
  ofItem: ["Pictures of this item", "Bilder dieses Objekts", "Images de cet objet", "Imágenes de este artículo", "该物品的图片", "このアイテムの画像"],
  duplicates: ["Near-duplicates", "Fast gleiche Bilder", "Quasi-doublons", "Casi iguales", "近似重复", "ほぼ同じ画像"],
  key: ["This server asks for a key", "Dieser Server verlangt einen Schlüssel", "Ce serveur demande une clé", "Este servidor pide una clave", "此服务器需要密钥", "このサーバーにはキーが必要です"],
  apiKey: ["API key", "API-Schlüssel", "Clé d’API", "Clave de API", "API 密钥", "API キー"],
  goOn: ["Go on", "Weiter", "Continuer", "Continuar", "继续", "続ける"],
  drop: ["Drop it to find pictures like it", "Loslassen, um ähnliche Bilder zu finden", "Déposez pour trouver des images semblables", "Suelte para encontrar imágenes parecidas", "松开以查找相似图片", "ドロップして似た画像を探す"],
  language: ["Language", "Sprache", "Langue", "Idioma", "语言", "言語"],
  searching: ["Searching …", "Suche …", "Recherche …", "Buscando …", "搜索中…", "検索中…"],
  welcome: ["{count} pictures. Say what you are looking for.", "{count} Bilder. Sagen Sie, was Sie suchen.", "{count} images. Dites ce que vous cherchez.", "{count} imágenes. Diga qué busca.", "{count} 张图片。说出您要找的。", "{count} 枚の画像。探すものを入力してください。"],
  welcomeOne: ["1 picture. Say what you are looking for.", "1 Bild. Sagen Sie, was Sie suchen.", "1 image. Dites ce que vous cherchez.", "1 imagen. Diga qué busca.", "1 张图片。说出您要找的。", "1 枚の画像。探すものを入力してください。"],
  welcomeHow: ["Words, a picture that you drop or paste, or both.", "Wörter, ein Bild (ziehen oder einfügen), oder beides.", "Des mots, une image déposée ou collée, ou les deux.", "Palabras, una imagen soltada o pegada, o ambas.", "输入文字,拖入或粘贴图片,或两者并用。", "言葉、ドロップまたは貼り付けた画像、またはその両方。"],
  filtered: ["{count} {what} with these filters", "{count} {what} mit diesen Filtern", "{count} {what} avec ces filtres", "{count} {what} con estos filtros", "{count} {what}符合这些条件", "この条件の{what}:{count}"],
  best: ["Best {count} {what} {subject}", "Beste {count} {what} {subject}", "{count} premiers : {what} {subject}", "Mejores {count} {what} {subject}", "{subject}的前 {count} 个{what}", "{subject}の{what}、上位 {count} 件"],
  all: ["All {count} {what} {subject}", "Alle {count} {what} {subject}", "Les {count} {what} {subject}", "Los {count} {what} {subject}", "{subject}的全部 {count} 个{what}", "{subject}の{what}、全 {count} 件"],
  whatPictures: ["pictures", "Bilder", "images", "imágenes", "图片", "画像"],
  whatTexts: ["texts", "Texte", "textes", "textos", "文字", "テキスト"],
  forWords: ["for “{q}”", "zu „{q}“", "pour « {q} »", "para «{q}»", "“{q}”", "「{q}」"],
  forBoth: ["for “{q}” and your picture", "zu „{q}“ und Ihrem Bild", "pour « {q} » et votre image", "para «{q}» y su imagen", "“{q}”和您的图片", "「{q}」とあなたの画像"],
  likeChosen: ["like the chosen one", "wie das gewählte", "comme celle choisie", "como la elegida", "类似所选", "選んだ画像に似た"],
  likeYours: ["like your picture", "wie Ihr Bild", "comme votre image", "como su imagen", "类似您的图片", "あなたの画像に似た"],
  emptyStore: ["Nothing is indexed yet", "Noch nichts indiziert", "Rien n’est encore indexé", "Aún no hay nada indexado", "尚未索引任何内容", "まだ何も登録されていません"],
  emptyStoreHow: ["Fill this store with `unicross index CHECKPOINT FOLDER --store STORE`; this page sees new pictures at once.", "Füllen Sie den Speicher mit `unicross index CHECKPOINT FOLDER --store STORE`; die Seite sieht neue Bilder sofort.", "Remplissez-le avec `unicross index CHECKPOINT FOLDER --store STORE` ; la page voit aussitôt les nouvelles images.", "Llénelo con `unicross index CHECKPOINT FOLDER --store STORE`; la página ve las nuevas imágenes enseguida.", "请用 `unicross index CHECKPOINT FOLDER --store STORE` 添加;页面会立即看到新图片。", "`unicross index CHECKPOINT FOLDER --store STORE` で登録すると、すぐに表示されます。"],
  nothing: ["Nothing found", "Nichts gefunden", "Rien trouvé", "Nada encontrado", "什么也没找到", "見つかりません"],
  nothingWords: ["No caption, file name or column has these words.", "Kein Bildtext, Dateiname oder Feld enthält diese Wörter.", "Aucune légende, aucun nom de fichier ni champ ne contient ces mots.", "Ninguna leyenda, nombre de archivo ni campo tiene estas palabras.", "没有描述、文件名或字段包含这些字词。", "この言葉を含む説明文、ファイル名、項目はありません。"],
  nothingFilters: ["Nothing meets all the filters.", "Nichts erfüllt alle Filter.", "Rien ne satisfait tous les filtres.", "Nada cumple todos los filtros.", "没有符合所有条件的内容。", "すべての条件に合うものはありません。"],
  nothingKind: ["There is nothing of this kind in the store.", "Davon gibt es hier nichts.", "Il n’y a rien de ce genre ici.", "No hay nada de este tipo aquí.", "库中没有这类内容。", "この種類のものはありません。"],
  unlikely: ["Nothing here looks like that", "Hier sieht nichts danach aus", "Rien ici n’y ressemble", "Nada aquí se parece a eso", "这里没有看起来像的", "それらしいものはありません"],
  unlikelyHow: ["No picture is at least {share} likely a match.", "Kein Bild passt mit mindestens {share} Wahrscheinlichkeit.", "Aucune image n’a au moins {share} de chances de convenir.", "Ninguna imagen tiene al menos {share} de probabilidad.", "没有图片的匹配可能性达到 {share}。", "一致の確からしさが {share} 以上の画像はありません。"],
  nearest: ["Show the nearest", "Die nächsten zeigen", "Montrer les plus proches", "Mostrar las más cercanas", "显示最接近的", "近いものを表示"],
  clearFilters: ["Clear the filters", "Filter zurücksetzen", "Effacer les filtres", "Borrar los filtros", "清除筛选", "条件をクリア"],
  failed: ["That did not work", "Das ging nicht", "Cela n’a pas marché", "Eso no funcionó", "操作失败", "うまくいきませんでした"],
  again: ["Try again", "Noch einmal", "Réessayer", "Reintentar", "重试", "もう一度"],
  select: ["Select {name}", "{name} auswählen", "Sélectionner {name}", "Seleccionar {name}", "选择 {name}", "{name} を選択"],
  selected: ["{count} selected", "{count} ausgewählt", "{count} sélectionnées", "{count} seleccionadas", "已选 {count} 个", "{count} 件選択中"],
  csv: ["Download as CSV", "Als CSV laden", "Télécharger en CSV", "Descargar como CSV", "下载 CSV", "CSV をダウンロード"],
  unselect: ["Clear the selection", "Auswahl aufheben", "Vider la sélection", "Quitar la selección", "清除选择", "選択を解除"],
  score: ["Score", "Wert", "Score", "Puntuación", "分数", "スコア"],
  likelihood: ["Likely a match", "Treffer wahrscheinlich", "Probabilité", "Probabilidad", "匹配可能性", "一致の確からしさ"],
  fileName: ["File", "Datei", "Fichier", "Archivo", "文件", "ファイル"],
  album: ["Album", "Album", "Album", "Álbum", "相册", "アルバム"],
  changed: ["Changed", "Geändert", "Modifié", "Modificado", "修改时间", "更新日時"],
  size: ["Size", "Größe", "Taille", "Tamaño", "大小", "サイズ"],
  picture: ["Picture {name}", "Bild {name}", "Image {name}", "Imagen {name}", "图片 {name}", "画像 {name}"],
  wordless: ["A text without words", "Ein Text ohne Worte", "Un texte sans mots", "Un texto sin palabras", "没有内容的文字", "言葉のないテキスト"],
};

export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", es: "Español", zh: "中文", ja: "日本語" };
const known = Object.keys(LANGUAGES);
const wished = [localStorage.getItem("language"), ...navigator.languages].map((tag) => tag?.slice(0, 2));
export const language = wished.find((tag) => known.includes(tag)) ?? "en";

export function t(name, values = {}) {
  const text = TEXTS[name][known.indexOf(language)];
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

// What index.html says, in the chosen language.
export function translate() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-title]")) node.title = t(node.dataset.title);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
}
